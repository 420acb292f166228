"""Modules of local/prepare_synth_commands.py: the synthesiser, the sentences, the rooms and noises."""
