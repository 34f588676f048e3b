package main

import (
	"fmt"
	"reflect"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// escapeAll returns the arguments of a Printf with everything escaped that prints as
// text: strings, errors and Stringers. Numbers stay as they are.
func escapeAll(args []any) []any {
	escaped := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case error, fmt.Stringer:
			escaped[i] = terminal.Escape(fmt.Sprint(arg))
		default:
			escaped[i] = arg
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				escaped[i] = terminal.Escape(v.String())
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
		if r > unicode.MaxASCII && terminal.Unprintable(r) || r == '\x7f' {
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}
