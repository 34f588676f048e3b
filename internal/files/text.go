package files

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Text returns what a person wrote, without byte-order marks at the start and at the
// start of lines, where files that were joined have them. Text in UTF-16 or UTF-32 is an
// error. The name is for the error.
func Text(name string, data []byte) ([]byte, error) {
	if encoding := wideEncoding(data); encoding != "" {
		return nil, fmt.Errorf("%s is encoded in %s; save it as UTF-8", name, encoding)
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	return bytes.ReplaceAll(data, []byte("\n\uFEFF"), []byte("\n")), nil
}

// Line returns the one line of a text, such as a password, without the line breaks
// around it. Spaces stay. It returns "" if there is none.
func Line(name string, data []byte) (string, error) {
	text, err := Text(name, data)
	if err != nil {
		return "", err
	}
	line := strings.Trim(string(text), "\r\n")
	if strings.ContainsAny(line, "\r\n") {
		return "", fmt.Errorf("%s has more than one line", name)
	}
	if !utf8.ValidString(line) {
		return "", fmt.Errorf("%s is not in UTF-8; save it as UTF-8", name)
	}
	return line, nil
}

// wideEncoding returns the name of the encoding of text in units of more than one byte,
// and "" for other text.
func wideEncoding(data []byte) string {
	for _, encoding := range []struct{ name, mark string }{
		{"UTF-32", "\xff\xfe\x00\x00"}, // Before UTF-16, whose mark is its beginning.
		{"UTF-32", "\x00\x00\xfe\xff"},
		{"UTF-16", "\xff\xfe"},
		{"UTF-16", "\xfe\xff"},
	} {
		if bytes.HasPrefix(data, []byte(encoding.mark)) {
			return encoding.name
		}
	}
	// Without a mark: in what people write here, the first characters are ASCII.
	if len(data) >= 4 && (data[0] == 0) != (data[1] == 0) && (data[0] == 0) == (data[2] == 0) && (data[1] == 0) == (data[3] == 0) {
		return "UTF-16"
	}
	return ""
}
