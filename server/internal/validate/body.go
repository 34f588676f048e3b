package validate

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// checkBody reads the body, checks it against the contract, and replaces it for the
// decoder. It does not touch the body of an operation without one.
func (op *operation) checkBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > MaxBody {
		return problem.TooLarge()
	}
	if op.body == nil {
		return nil
	}
	if r.ContentLength != 0 && !isJSON(r.Header) {
		return problem.UnsupportedMediaType()
	}
	text, err := readBody(w, r)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		if op.required {
			return problem.Invalid(problem.Field("body", "is required"))
		}
		return nil
	}
	if err := checkJSON(op.body, text); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	return nil
}

// isJSON reports whether the headers announce uncompressed JSON in UTF-8, its only
// encoding (RFC 8259 section 8.1). Parameters of the media type have no meaning for JSON
// (RFC 8259 section 11) and are ignored, except a charset that is not UTF-8.
func isJSON(header http.Header) bool {
	mediaType, parameters, err := mime.ParseMediaType(strings.Join(header.Values("Content-Type"), ","))
	// A malformed parameter does not change the type. A second type would.
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return false
	}
	return mediaType == "application/json" && isUTF8(parameters["charset"]) && isIdentity(header.Values("Content-Encoding"))
}

// isUTF8 reports whether a charset is UTF-8, or a subset of it, under one of its names.
// An empty charset is.
func isUTF8(charset string) bool {
	switch strings.ToLower(strings.Trim(charset, " '\"")) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return true
	default:
		return false
	}
}

// isIdentity reports whether values of Content-Encoding name no encoding.
func isIdentity(values []string) bool {
	for _, value := range values {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return false
			}
		}
	}
	return true
}

// readBody reads the whole body within bodyTimeout. A slow caller holds a goroutine
// and up to 64 KiB for that long.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	// The response writers of some tests do not support deadlines.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	text, err := io.ReadAll(r.Body)
	_ = control.SetReadDeadline(time.Time{})

	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return text, nil
	case errors.As(err, &tooLarge):
		return nil, problem.TooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, problem.Invalid(problem.Field("body", "did not arrive in time"))
	default:
		return nil, problem.Invalid(problem.Field("body", "did not arrive completely"))
	}
}

// checkJSON checks text against schema.
func checkJSON(schema *openapi3.Schema, text []byte) error {
	value, err := parseJSON(text)
	if err != nil {
		return err
	}
	err = schema.VisitJSON(value, openapi3.VisitAsRequest(), openapi3.MultiErrors(), formats)
	if err == nil {
		return nil
	}
	details := schemaDetails("", err)
	if len(details) == 0 {
		details = append(details, problem.Field("body", "does not match the contract"))
	}
	return problem.Invalid(details...)
}
