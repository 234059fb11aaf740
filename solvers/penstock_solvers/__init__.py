"""Solvers that stream to Penstock: one equation, one file, one main()."""
