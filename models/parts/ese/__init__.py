"""Parts of `gossamer.models.ese`: the program of an LSTM, its times, bounds, the units as processes, the numbers."""
