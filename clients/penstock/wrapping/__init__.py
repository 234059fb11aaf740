"""The parts of `penstock wrap`, which streams what an unchanged program writes into files."""
