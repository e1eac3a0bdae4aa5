"""Storage formats of sparse weights: encode, decode, and the bits that each part takes."""
