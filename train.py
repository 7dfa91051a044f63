"""Train a model of the zoo: `python train.py model=gan data=digits`; `--help` lists what can be chosen."""

from zoo.cli.train import train

if __name__ == "__main__":
    train()
