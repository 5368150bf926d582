//! A reader that is broken on purpose: it takes decoded coordinates in a wrong order. A measurement that does not
//! notice it notices nothing.

/// The coordinate that is read in the place of each coordinate; the default reads correctly.
#[derive(Clone, Default)]
pub struct Misread(Option<Vec<usize>>);

impl Misread {
    pub fn of(d: usize) -> Misread {
        Misread(Some((0..d).map(|i| (37 * i + 11) % d).collect()))
    }

    /// The coordinate that comes to each place of a row that is read, and of a query that is aimed; None reads correctly.
    pub fn tables(&self) -> Option<[Vec<i32>; 2]> {
        let from = self.0.as_ref()?;
        let mut aimed = vec![0; from.len()];
        from.iter().enumerate().for_each(|(i, at)| aimed[*at] = i as i32);
        Some([from.iter().map(|at| *at as i32).collect(), aimed])
    }

    /// Rows as this run reads them.
    pub fn read(&self, rows: Vec<f32>) -> Vec<f32> {
        match &self.0 {
            Some(from) => rows.chunks(from.len()).flat_map(|row| from.iter().map(|i| row[*i])).collect(),
            None => rows,
        }
    }

    /// Queries that meet correctly read keys as the given ones meet misread keys: q . read(k) = aim(q) . k.
    pub fn aim(&self, queries: &[f32]) -> Vec<f32> {
        let Some(from) = &self.0 else { return queries.to_vec() };
        let mut aimed = vec![0.0; queries.len()];
        for (aimed, row) in aimed.chunks_mut(from.len()).zip(queries.chunks(from.len())) {
            from.iter().zip(row).for_each(|(i, value)| aimed[*i] = *value);
        }
        aimed
    }
}
