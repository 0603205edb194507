"""A model's chat format: values and functions that know neither HTTP nor the engine."""
