//! What is a picture? Marks on paper, in the order in which they are made, which are then drawn as
//! an SVG or as a PNG.

use plotters::prelude::{Color, IntoFont, RGBColor, SVGBackend, TextStyle};
use plotters::style::text_anchor::{Pos, VPos};
use plotters_backend::{BackendCoord, DrawingBackend, DrawingErrorKind};

use super::canvas::{Canvas, EX, PLOTTERS_SIZE};
use super::letters;
use super::style::{FAMILY, Letters, MARGIN, PAPER, SMALL, SUPERSAMPLING, TITLE};

/// The height of a capital or a digit, by the em.
const CAPITAL: f64 = 0.729;

/// From the upper left corner, to the right and down.
pub type Place = (f64, f64);

/// Marks on paper.
pub struct Picture {
    /// How wide and how high the paper is.
    pub size: Place,
    marks: Vec<Mark>,
}

enum Mark {
    Area { corners: [Place; 2], colour: RGBColor },
    Line { ends: [Place; 2], width: f64, colour: RGBColor },
    Shape { corners: Vec<Place>, colour: RGBColor },
    Disc { centre: Place, radius: f64, colour: RGBColor },
    Words { at: Place, text: String, letters: Letters },
}

/// Draws marks, with so many of its pixels for one of the picture's.
struct Pen<'a, D: DrawingBackend> {
    backend: &'a mut D,
    scale: f64,
}

type Drawn<D> = Result<(), DrawingErrorKind<<D as DrawingBackend>::ErrorType>>;

impl Picture {
    /// Paper of this width, with a title and notes; and how far down they go, where what follows
    /// begins and the height is not known yet.
    pub fn new(width: f64, title: &str, notes: &str) -> (Self, f64) {
        let mut picture = Self { size: (width, 0.0), marks: Vec::new() };
        let mut y = MARGIN;
        for (text, letters) in [(title, TITLE), (notes, SMALL)] {
            for line in letters::wrapped(text, letters.size, width - 2.0 * MARGIN) {
                picture.words((MARGIN, y + letters.line_height() / 2.0), line, letters);
                y += letters.line_height();
            }
        }
        (picture, y)
    }

    /// A filled rectangle.
    pub fn area(&mut self, corners: [Place; 2], colour: RGBColor) {
        self.marks.push(Mark::Area { corners, colour });
    }

    /// A straight line.
    pub fn line(&mut self, ends: [Place; 2], width: f64, colour: RGBColor) {
        self.marks.push(Mark::Line { ends, width, colour });
    }

    /// A filled polygon.
    pub fn shape(&mut self, corners: Vec<Place>, colour: RGBColor) {
        self.marks.push(Mark::Shape { corners, colour });
    }

    /// A filled circle.
    pub fn disc(&mut self, centre: Place, radius: f64, colour: RGBColor) {
        self.marks.push(Mark::Disc { centre, radius, colour });
    }

    /// A line of text; the middle of its capitals and digits is at the height given.
    pub fn words(&mut self, at: Place, text: impl Into<String>, letters: Letters) {
        self.marks.push(Mark::Words { at, text: text.into(), letters });
    }

    /// As an SVG.
    ///
    /// # Errors
    /// What plotters says.
    pub fn svg(&self) -> Result<Vec<u8>, String> {
        let mut text = String::new();
        self.draw(&mut SVGBackend::with_string(&mut text, self.pixels(1)), 1)?;
        Ok(text.into_bytes())
    }

    /// As a PNG.
    ///
    /// # Errors
    /// What plotters or the encoder says.
    pub fn png(&self) -> Result<Vec<u8>, String> {
        let mut canvas = Canvas::new(self.pixels(SUPERSAMPLING));
        self.draw(&mut canvas, SUPERSAMPLING)?;
        canvas.into_png(SUPERSAMPLING).map_err(|error| error.to_string())
    }

    fn pixels(&self, scale: u32) -> (u32, u32) {
        (self.size.0.ceil() as u32 * scale, self.size.1.ceil() as u32 * scale)
    }

    fn draw<D: DrawingBackend>(&self, backend: &mut D, scale: u32) -> Result<(), String> {
        let corners = [(0.0, 0.0), (self.size.0.ceil(), self.size.1.ceil())];
        let paper = Mark::Area { corners, colour: PAPER };
        let mut pen = Pen { backend, scale: f64::from(scale) };
        let mut marks = std::iter::once(&paper).chain(&self.marks);
        let drawn = marks.try_for_each(|mark| pen.draw(mark)).and_then(|()| pen.backend.present());
        drawn.map_err(|error| error.to_string())
    }
}

impl<D: DrawingBackend> Pen<'_, D> {
    fn draw(&mut self, mark: &Mark) -> Drawn<D> {
        match mark {
            Mark::Area { corners, colour } => {
                let [from, to] = corners.map(|corner| self.at(corner));
                self.backend.draw_rect(from, to, &colour.filled(), true)
            }
            Mark::Line { ends, width, colour } => {
                let [from, to] = ends.map(|end| self.at(end));
                self.backend.draw_line(from, to, &colour.stroke_width(self.length(*width)))
            }
            Mark::Shape { corners, colour } => {
                let corners: Vec<_> = corners.iter().map(|corner| self.at(*corner)).collect();
                self.backend.fill_polygon(corners, &colour.filled())
            }
            Mark::Disc { centre, radius, colour } => {
                let (centre, radius) = (self.at(*centre), self.length(*radius));
                self.backend.draw_circle(centre, radius, &colour.filled(), true)
            }
            Mark::Words { at, text, letters } => self.write(*at, text, *letters),
        }
    }

    fn write(&mut self, (x, y): Place, text: &str, letters: Letters) -> Drawn<D> {
        let lowered = y + letters.size * (CAPITAL - EX) / 2.0;
        let size = letters.size * PLOTTERS_SIZE * self.scale;
        let style = TextStyle::from((FAMILY, size).into_font())
            .color(&letters.colour)
            .pos(Pos::new(letters.align, VPos::Center));
        self.backend.draw_text(&readable(text), &style, self.at((x, lowered)))
    }

    fn at(&self, (x, y): Place) -> BackendCoord {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn length(&self, length: f64) -> u32 {
        (length * self.scale).round() as u32
    }
}

/// The text without what XML has no place for.
fn readable(text: &str) -> String {
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}');
    text.chars().map(|c| if is_odd(c) { '\u{FFFD}' } else { c }).collect()
}
