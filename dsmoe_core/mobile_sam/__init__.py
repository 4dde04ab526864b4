"""MobileSAM: weight conversion, image encoder for the detector, and masks from points and boxes."""
