"""How robust a fine-tuned checkpoint is: ``adv-plugins evaluate``, one idea a file."""
