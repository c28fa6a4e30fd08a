//! How the columns of a target are cut into panels of weights, each as wide as a register tile.

/// Some columns of the target (filters, or input channels on the way back) that make one panel of weights.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Panel {
    pub(in crate::engine) group: usize,
    /// First column within the group.
    pub(in crate::engine) column: usize,
    pub(in crate::engine) columns: usize,
    /// Vectors across.
    pub(in crate::engine) nr: usize,
}

/// Cuts the columns of every group into panels.
pub(in crate::engine) fn panels(groups: usize, columns: usize, lanes: usize, nr: usize) -> Vec<Panel> {
    let wide = lanes * nr;
    let mut panels = Vec::new();
    for group in 0..groups {
        for column in (0..columns).step_by(wide) {
            let columns = wide.min(columns - column);
            panels.push(Panel { group, column, columns, nr: columns.div_ceil(lanes) });
        }
    }
    panels
}
