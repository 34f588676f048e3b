package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// maxDepth is the maximum nesting depth of arrays and objects. The contract needs
// three levels.
const maxDepth = 32

// parseJSON parses exactly one JSON value into the types of encoding/json, with
// numbers as json.Number.
//
// It is stricter than encoding/json: it rejects invalid UTF-8, duplicate names in an
// object (parsers disagree on which value counts), NUL in strings, and nesting beyond
// maxDepth. The error is a *problem.Error that names the invalid field, or "body" if
// the error is not within a field.
func parseJSON(text []byte) (any, error) {
	if err := checkSyntax(text); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		// A bug in one of the two parsers.
		return nil, problem.Internal(fmt.Errorf("decode checked JSON: %w", err))
	}
	return value, nil
}

// checkSyntax makes all checks of parseJSON.
func checkSyntax(text []byte) error {
	if !utf8.Valid(text) {
		return invalid("", "must be UTF-8")
	}
	// AllowInvalidUTF8 is for escaped lone surrogates, such as "\ud800", which
	// encoding/json decodes to U+FFFD.
	decoder := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowInvalidUTF8(true))
	for first := true; first || decoder.StackDepth() > 0; first = false {
		token, err := decoder.ReadToken()
		if err != nil {
			return syntaxError(err, decoder.InputOffset())
		}
		if decoder.StackDepth() > maxDepth {
			return invalid(field(decoder.StackPointer()), "is nested too deeply")
		}
		if token.Kind() == jsontext.KindString && !clean(token.String()) {
			pointer := decoder.StackPointer()
			if isName(decoder) {
				pointer = pointer.Parent()
			}
			return invalid(field(pointer), unclean)
		}
	}
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return invalid("", "has data after the JSON value")
	}
	return nil
}

// isName reports whether the last string that decoder read is the name of a member.
func isName(decoder *jsontext.Decoder) bool {
	kind, length := decoder.StackIndex(decoder.StackDepth())
	return kind == jsontext.KindBeginObject && length%2 == 1
}

// syntaxError translates an error of jsontext. offset, in bytes, is the position to
// report if the error has none.
func syntaxError(err error, offset int64) error {
	var syntactic *jsontext.SyntacticError
	if !errors.As(err, &syntactic) {
		return malformed("", offset)
	}
	name := field(syntactic.JSONPointer)
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return invalid(name, "is given more than once")
	}
	return malformed(name, syntactic.ByteOffset)
}

func malformed(field string, offset int64) error {
	return invalid(field, fmt.Sprintf("is not well-formed JSON, at byte %d", offset))
}

func invalid(field, message string) error {
	return problem.Invalid(problem.Field(field, message))
}

// field converts a JSON pointer to the form of error details: "/options/proxyProtocol"
// to "options.proxyProtocol".
func field(pointer jsontext.Pointer) string {
	path := ""
	for name := range pointer.Tokens() {
		path = join(path, name)
	}
	return path
}

// join appends a member's name or an element's index to the path of its parent.
func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}
