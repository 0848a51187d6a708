"""The whole gateway under load: load_<path>__<shape>.py, each with run(context) -> figures."""
