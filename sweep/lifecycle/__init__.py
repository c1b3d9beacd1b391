"""What happens to a model after its study: model card, promotion, evaluation, prediction."""
