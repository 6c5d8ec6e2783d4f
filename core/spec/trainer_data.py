"""Data-set entries of other trainers, read as they are: axolotl's `datasets:` and LLaMA-Factory's dataset_info.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from windowshift.core.spec.section import Positive, Section

Text = Annotated[str, Field(min_length=1)]
Ignored = Any
"""How a trainer masks, splits or renders: here the last answer of a chat is what is trained on, in its own template."""


class _Entry(Section):
    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class AxolotlColumns(_Entry):
    """What stands under `type:` where axolotl is told the columns itself; the formats are the chat template's here."""

    field_system: str = "system"
    field_instruction: str = "instruction"
    field_input: str = "input"
    field_output: str = "output"
    system_prompt: str = ""
    format: Ignored = None
    no_input_format: Ignored = None
    system_format: Ignored = None
    field: Ignored = None


class AxolotlData(_Entry):
    """One entry of axolotl's `datasets:`: a file, a folder or a data set of the hub, and how its rows are read.

    `name` is the configuration. A `type` of chats (`chat_template`, `sharegpt`), of instructions (`alpaca` and its
    kin) or of named columns is read; the others hold no prompt with an answer.
    """

    path: Text
    type: Text | AxolotlColumns
    ds_type: Literal["json", "csv", "parquet", "arrow"] | None = None
    data_files: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    name: Text | None = None
    split: Text = "train"
    revision: Text | None = None
    field_messages: Text | None = None
    message_property_mappings: dict[str, str] = {}
    message_field_role: Text | None = None
    message_field_content: Text | None = None
    roles: dict[str, list[str]] = {}
    field_system: Text | None = None
    drop_system_message: bool = False
    chat_template: Ignored = None
    chat_template_jinja: Ignored = None
    conversation: Ignored = None
    roles_to_train: Ignored = None
    train_on_eos: Ignored = None
    train_on_eot: Ignored = None
    train_on_inputs: Ignored = None
    message_field_training: Ignored = None
    message_field_training_detail: Ignored = None
    preprocess_shards: Ignored = None
    trust_remote_code: Ignored = None

    @property
    def source(self) -> str:
        """What the entry names."""
        return self.path

    @property
    def files(self) -> tuple[str, ...]:
        """The files of it that are read; empty: all."""
        return (self.data_files,) if isinstance(self.data_files, str) else tuple(self.data_files or ())


class FactoryColumns(_Entry):
    """LLaMA-Factory's `columns:`, with its defaults; the alpaca format takes the first five, sharegpt the others."""

    prompt: str = "instruction"
    query: str = "input"
    response: str = "output"
    history: str | None = None
    system: str | None = None
    messages: str = "conversations"
    tools: Ignored = None
    kto_tag: Ignored = None


class FactoryTags(_Entry):
    """LLaMA-Factory's `tags:`, with its defaults: which keys and words a message uses."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"
    observation_tag: Ignored = None
    function_tag: Ignored = None
    tool_calls_tag: Ignored = None


class _FactoryEntry(_Entry):
    formatting: Literal["alpaca", "sharegpt", "openai"] = "alpaca"
    ranking: Literal[False] = False
    num_samples: Positive | None = None
    columns: FactoryColumns = FactoryColumns()
    tags: FactoryTags = FactoryTags()


class FactoryFile(_FactoryEntry):
    """One entry of LLaMA-Factory's dataset_info.json: a file or a folder of files, and how its rows are read.

    `num_samples` takes that many rows, drawn by a fixed seed.
    """

    file_name: Text

    @property
    def source(self) -> str:
        """What the entry names."""
        return self.file_name


class FactoryHub(_FactoryEntry):
    """As `FactoryFile`, of the hub, which comes first where an entry names a file too, as in LLaMA-Factory."""

    hf_hub_url: Text
    subset: Text | None = None
    split: Text = "train"
    folder: Text | None = None
    file_name: Ignored = None
    ms_hub_url: Ignored = None
    om_hub_url: Ignored = None

    @property
    def source(self) -> str:
        """What the entry names."""
        return self.hf_hub_url


class FactoryListed(_Entry):
    """An entry of a dataset_info.json, by its name: ``{dataset_info: data/dataset_info.json, name: mine}``."""

    dataset_info: Text
    name: Text

    @property
    def source(self) -> str:
        """The file and the name in it."""
        return f"{self.dataset_info}:{self.name}"


TrainerData = AxolotlData | FactoryFile | FactoryHub | FactoryListed
