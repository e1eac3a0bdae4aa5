"""Parts of `gossamer.models.csr_spmm`: rows to warps, their times, the GPU's units, the numbers."""
