"""The Tinker test server: SkyRL on a CPU behind what client 0.38 says. Runs in an environment of its own."""
