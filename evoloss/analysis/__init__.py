"""What a loss does, without training with it: its properties, proved, checked or refuted, and what it is like."""
