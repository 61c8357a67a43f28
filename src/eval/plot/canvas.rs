//! How is a picture drawn as pixels? Lines and areas as plotters cuts them up, letters by their
//! outlines. (plotters' own way with letters leaves out their bearings, so that words fall apart.)

use std::convert::Infallible;
use std::io;

use plotters::style::text_anchor::HPos;
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

use super::letters;

/// The height of a small letter without ascender, by the em.
pub const EX: f64 = 0.547;

/// What plotters makes of an em.
pub const PLOTTERS_SIZE: f64 = 1.24;

/// Pixels.
pub struct Canvas {
    size: (u32, u32),     // width, height
    pixels: Vec<[u8; 3]>, // [y][x] red, green, blue
}

impl Canvas {
    /// White.
    pub fn new(size: (u32, u32)) -> Self {
        Self { size, pixels: vec![[255; 3]; size.0 as usize * size.1 as usize] }
    }

    /// As a PNG, with a pixel for each `n` by `n`.
    ///
    /// # Errors
    /// When it is too large for a PNG.
    pub fn into_png(self, n: u32) -> io::Result<Vec<u8>> {
        let size = (self.size.0 / n, self.size.1 / n);
        let rows = (0..size.1).flat_map(|y| (0..size.0).map(move |x| (x, y)));
        let bytes: Vec<u8> = rows.flat_map(|place| self.mean(place, n)).collect();
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&bytes)?;
        writer.finish()?;
        Ok(file)
    }

    fn blend(&mut self, (x, y): BackendCoord, colour: BackendColor) {
        let (width, height) = self.size;
        if (0..width as i32).contains(&x) && (0..height as i32).contains(&y) {
            let pixel = &mut self.pixels[y as usize * width as usize + x as usize];
            let above = [colour.rgb.0, colour.rgb.1, colour.rgb.2];
            for (channel, above) in pixel.iter_mut().zip(above) {
                let (above, below) = (f64::from(above), f64::from(*channel));
                *channel = (below + colour.alpha.clamp(0.0, 1.0) * (above - below)).round() as u8;
            }
        }
    }

    fn mean(&self, (x, y): (u32, u32), n: u32) -> [u8; 3] {
        let mut sum = [0; 3];
        for row in y * n..(y + 1) * n {
            let start = row as usize * self.size.0 as usize + (x * n) as usize;
            for pixel in &self.pixels[start..start + n as usize] {
                (0..3).for_each(|i| sum[i] += u32::from(pixel[i]));
            }
        }
        sum.map(|channel| ((channel + n * n / 2) / (n * n)) as u8)
    }
}

impl DrawingBackend for Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn draw_pixel(
        &mut self,
        place: BackendCoord,
        colour: BackendColor,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.blend(place, colour);
        Ok(())
    }

    /// Letters stand as centred ones do in an SVG: the middle of a small letter at `y`.
    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let size = style.size() / PLOTTERS_SIZE;
        let (outlines, width) = letters::outlines(text, size);
        let before = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => width / 2.0,
            HPos::Right => width,
        };
        let left = (f64::from(x) - before).round() as i32;
        let base = (f64::from(y) + size * EX / 2.0).round() as i32;
        let BackendColor { alpha, rgb } = style.color();
        for outline in outlines {
            let corner = outline.px_bounds().min;
            let (left, top) = (left + corner.x as i32, base + corner.y as i32);
            outline.draw(|x, y, coverage| {
                let alpha = alpha * f64::from(coverage);
                self.blend((left + x as i32, top + y as i32), BackendColor { alpha, rgb });
            });
        }
        Ok(())
    }
}
