"""The report: measures as pages, JSON, tables, figures and exports."""
