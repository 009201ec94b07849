"""The research room: data, training, backtest, reports. Needs ``pip install sqkit[research]``."""
