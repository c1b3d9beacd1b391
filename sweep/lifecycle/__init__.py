"""What happens to a model after its study: card, promotion, evaluation, prediction."""
