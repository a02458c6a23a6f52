"""Is it a learning algorithm? Transformers beside learners with a formula, and beside training.

regression         a transformer trained on linear regression beside such learners
regression_probes  what is inside it
descent            attention made by hand that is gradient descent
finetuning         a language model: seeing demonstrations beside being trained on them
"""
