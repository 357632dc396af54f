//! QR codes in a terminal.

use std::io::IsTerminal;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// White on black, whatever the terminal's own colours are, and back to those.
const WHITE_ON_BLACK: &str = "\x1b[97;40m";
const OWN_COLOURS: &str = "\x1b[0m";

/// A text as a QR code for standard output; `None` if it is too long. In a terminal it has colours of its
/// own: many readers refuse a code whose light and dark are turned around.
#[must_use]
pub fn to_show(text: &str) -> Option<String> {
    let drawn = in_blocks(text)?;
    if !std::io::stdout().is_terminal() {
        return Some(drawn);
    }
    let lines = drawn.lines();
    let coloured: Vec<_> = lines
        .map(|line| format!("{WHITE_ON_BLACK}{line}{OWN_COLOURS}"))
        .collect();
    Some(coloured.join("\n"))
}

/// A text as a QR code of half blocks, with the margin that readers want. Light on dark.
fn in_blocks(text: &str) -> Option<String> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    let mut image = code.render::<Dense1x2>();
    // What a terminal draws is light, and a code is dark.
    image
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark);
    Some(image.build())
}

#[cfg(test)]
mod tests {
    use rossby_client::linking::{DeviceName, LinkCode};
    use rqrr::PreparedImage;

    use super::*;

    /// What a camera reads that looks at a terminal.
    fn read(drawn: &str) -> String {
        const DOTS: usize = 4;
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        let width = lines[0].len();
        let is_light = |x: usize, y: usize| match lines[y / 2][x] {
            '█' => true,
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            _ => false,
        };
        let brightness = |x, y| u8::from(is_light(x / DOTS, y / DOTS)) * 255;
        let side = width * DOTS;
        let mut seen = PreparedImage::prepare_from_greyscale(side, side, brightness);
        let found = seen.detect_grids();
        assert_eq!(found.len(), 1, "{drawn}");
        found[0].decode().unwrap().1
    }

    #[test]
    fn what_is_shown_is_read_again_as_the_code_of_the_device() {
        for name in ["laptop", "Grüße", &"n".repeat(DeviceName::MAX_BYTES)] {
            let code = LinkCode {
                key: [0xa7; 32],
                name: DeviceName::new(name).unwrap(),
            };
            let drawn = to_show(&code.to_digits()).unwrap();
            assert_eq!(LinkCode::from_text(&read(&drawn)), Ok(code));
        }
        let number = "12345".repeat(12);
        assert_eq!(read(&to_show(&number).unwrap()), number);
    }

    #[test]
    fn a_code_is_a_square_with_a_margin_all_round() {
        let drawn = in_blocks(&"0A1B".repeat(24)).unwrap();
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        let width = lines[0].len();
        assert!(lines.iter().all(|line| line.len() == width));
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!(width <= 60, "{width}");
        let full = |line: &Vec<char>| line.iter().all(|block| *block == '█');
        assert!(full(&lines[0]) && full(&lines[1]), "{drawn}");
        assert!(
            lines
                .iter()
                .all(|line| line[..4] == ['█'; 4] || line[0] == '▀')
        );
        assert!(in_blocks(&"a".repeat(4000)).is_none());
    }
}
