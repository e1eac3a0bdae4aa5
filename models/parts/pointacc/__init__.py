"""Parts of `gossamer.models.pointacc`: mapping unit, memory management unit, matrix unit; a hash table to compare."""
