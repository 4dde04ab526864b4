"""MobileSAM: its weights under our names, its encoder for the detector, its masks from points and boxes."""
