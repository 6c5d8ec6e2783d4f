"""Settings of reward hacking: code that passes the tests it was shown, and code that does what was asked."""
