"""Methods that see the singular values and vectors of whole matrices, by way of their inner products.

No singular value decomposition is computed. Every result is a function of the inner products on the short side, whose
eigenvectors' signs, and turns among equal eigenvalues, cancel out.
"""
