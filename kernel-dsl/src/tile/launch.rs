//! Runs a kernel's Rust function over a grid, block after block.

use std::cell::Cell;

thread_local! {
    static BLOCK: Cell<[u32; 3]> = const { Cell::new([0; 3]) };
}

/// The block that runs on this thread.
pub fn current_block() -> [u32; 3] {
    BLOCK.get()
}

/// Calls `kernel` once for each block of the grid, axis 0 fastest.
pub fn launch(grid: [u32; 3], mut kernel: impl FnMut()) {
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                BLOCK.set([x, y, z]);
                kernel();
            }
        }
    }
}
