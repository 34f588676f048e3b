package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// escape returns s as one line that is safe to print to a terminal: characters that
// move the cursor, begin an escape sequence, end the line or change the direction of
// the text become Go escapes, such as \x1b. Names come from the panel, and from there
// from other people; rows older than the panel's own checks may contain anything.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unprintable reports whether a terminal would act on r instead of showing it. It
// spares the joiners, which emoji and some scripts need.
func unprintable(r rune) bool {
	const zeroWidthNonJoiner, zeroWidthJoiner = '\u200c', '\u200d'
	if r == zeroWidthNonJoiner || r == zeroWidthJoiner {
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// escapeAll returns the arguments of a Printf with everything escaped that prints as
// text: strings, errors and Stringers. Numbers stay as they are.
func escapeAll(args []any) []any {
	escaped := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case error, fmt.Stringer:
			escaped[i] = escape(fmt.Sprint(arg))
		default:
			escaped[i] = arg
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				escaped[i] = escape(v.String())
			}
		}
	}
	return escaped
}

// escapeJSON returns JSON with the same characters written as \u escapes, which mean
// the same to a parser. Line breaks between tokens stay.
func escapeJSON(text []byte) []byte {
	var out []byte
	for _, r := range string(text) {
		if r > unicode.MaxASCII && unprintable(r) || r == '\x7f' {
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}
