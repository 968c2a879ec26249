//! Names that are made from titles.

/// Most characters of a slug.
const MAX_CHARS: usize = 40;
/// A word that began before this is cut rather than dropped.
const MIN_KEPT: usize = 20;

/// Makes a name of lower-case letters and digits of any script, with single hyphens between; may be empty.
pub(super) fn slug(title: &str) -> String {
    let mut slug = String::new();
    let mut chars = 0;
    let mut last_hyphen = None;
    for char in title.chars().flat_map(char::to_lowercase) {
        let hyphen = match class(char) {
            Class::Keep => false,
            Class::Drop => continue,
            Class::Separate if slug.is_empty() || slug.ends_with('-') => continue,
            Class::Separate => true,
        };
        if chars == MAX_CHARS {
            if !hyphen && let Some((at, _)) = last_hyphen.filter(|(_, before)| *before >= MIN_KEPT)
            {
                slug.truncate(at);
            }
            break;
        }
        if hyphen {
            last_hyphen = Some((slug.len(), chars));
        }
        slug.push(if hyphen { '-' } else { char });
        chars += 1;
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

enum Class {
    Keep,
    Drop,
    Separate,
}

fn class(char: char) -> Class {
    match char {
        _ if char.is_alphanumeric() => Class::Keep,
        // Apostrophes within words, accents and vowel points written as characters of their own, joiners, selectors.
        '\'' | '’' | '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' => {
            Class::Drop
        }
        '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => Class::Drop,
        // The dandas of the Indic scripts end sentences.
        '\u{964}' | '\u{965}' => Class::Separate,
        // Signs without which words of the scripts of South and South-East Asia fall apart.
        '\u{900}'..='\u{109f}' => Class::Keep,
        _ => Class::Separate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_of_any_script_give_usable_slugs() {
        for (title, expected) in [
            ("Fix the login page", "fix-the-login-page"),
            ("  don't --- panic!  ", "dont-panic"),
            ("Überprüfung der Größe", "überprüfung-der-größe"),
            ("修复登录页面、再试", "修复登录页面-再试"),
            ("Исправить ВХОД", "исправить-вход"),
            ("हिन्दी में।", "हिन्दी-में"),
            ("แก้ไขหน้า", "แก้ไขหน้า"),
            ("cafe\u{301}", "cafe"),
            ("🚀🚀", ""),
            ("../../etc/passwd", "etc-passwd"),
            ("a..b.lock @{x} ~^:?*[\\", "a-b-lock-x"),
            ("", ""),
            ("line one\nline two\u{7f}", "line-one-line-two"),
        ] {
            assert_eq!(slug(title), expected, "{title:?}");
        }
    }

    #[test]
    fn long_titles_are_cut_between_words_where_possible() {
        let title = "make the importer of the accounts faster by a lot";
        assert_eq!(slug(title), "make-the-importer-of-the-accounts-faster");
        let title = "make the importer of the accounts fasterer by a lot";
        assert_eq!(slug(title), "make-the-importer-of-the-accounts");
        assert_eq!(slug(&"語".repeat(100)).chars().count(), MAX_CHARS);
    }
}
