"""The library behind the stages: data, models, learning, evaluation and reports."""
