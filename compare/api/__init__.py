"""The same judgement for models other than ours."""
