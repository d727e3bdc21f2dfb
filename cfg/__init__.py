"""The configuration values. Installed as ``dima_isaac.cfg``; the schema is ``dima_isaac.config``."""
