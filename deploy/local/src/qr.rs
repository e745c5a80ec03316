//! A QR in the terminal: two modules a character.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use qrcodegen::{QrCode, QrCodeEcc};

/// Modules of light around a code (ISO/IEC 18004).
const QUIET: i32 = 4;

/// Draws a text. A presentation is in QR's alphanumeric set, so that it stays small. Returns the drawing and the version.
pub fn draw(text: &str) -> Result<(String, u8)> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok().context("the text is too long for a QR")?;
    let end = code.size() + QUIET;
    let mut drawing = String::new();
    for y in (-QUIET..end).step_by(2) {
        for x in -QUIET..end {
            // Outside the code `get_module` is light, which makes the quiet zone.
            drawing.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (false, false) => '█',
                (false, true) => '▀',
                (true, false) => '▄',
                (true, true) => ' ',
            });
        }
        drawing.push('\n');
    }
    Ok((drawing, code.version().value()))
}

/// A drawing's light modules are characters and its dark ones are gaps: on a terminal the colours are set, so that it scans
/// on a light one as well.
pub fn on_terminal(drawing: &str) -> String {
    if std::io::stdout().is_terminal() {
        drawing.lines().map(|line| format!("\x1b[97;40m{line}\x1b[0m\n")).collect()
    } else {
        drawing.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_square_with_its_quiet_zone() {
        let (drawing, version) = draw("TX1:ABC").unwrap();
        let side = 17 + 4 * usize::from(version) + 8;
        assert!(drawing.lines().all(|line| line.chars().count() == side));
        assert_eq!(drawing.lines().count(), side.div_ceil(2));
        assert!(draw(&"A".repeat(5000)).is_err());
    }
}
