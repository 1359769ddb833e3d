"""Compiled plans, the first tier of runtimes: preprocessing and estimator as tables, arrays and C kernels."""
