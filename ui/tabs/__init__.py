"""The tabs of the page, one file each: `build(view)` lays out and wires, handlers are plain functions of plain values."""
