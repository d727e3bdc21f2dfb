"""Small trained policies, one folder each. Installed as ``dima_isaac.zoo``; ``run.zoo`` says what a folder holds."""
