package validate

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// What is deprecated in the contract, operations and parameters, has two extensions beside `deprecated: true`: the
// dates since when it is, and from when it may be gone. docs/api-policy.md has the rules for them.
const (
	sinceExtension  = "x-deprecated-since"
	sunsetExtension = "x-sunset"
)

// deprecation is what responses tell of something deprecated; the zero value tells nothing.
type deprecation struct{ since, sunset time.Time }

// deprecationOf reads the extensions of what is called name.
func deprecationOf(name string, deprecated bool, extensions map[string]any) (deprecation, error) {
	var d deprecation
	for extension, date := range map[string]*time.Time{sinceExtension: &d.since, sunsetExtension: &d.sunset} {
		value, given := extensions[extension]
		if given != deprecated {
			return d, fmt.Errorf("%s: what has deprecated: true needs %s, and nothing else has it", name, extension)
		}
		if !deprecated {
			continue
		}
		var err error
		if *date, err = time.Parse(time.DateOnly, fmt.Sprint(value)); err != nil {
			return d, fmt.Errorf("%s: %s: %w", name, extension, err)
		}
	}
	if deprecated && !d.sunset.After(d.since) {
		return d, fmt.Errorf("%s: is gone before it is deprecated", name)
	}
	return d, nil
}

// earlier returns the deprecation of which clients have to know first.
func (d deprecation) earlier(other deprecation) deprecation {
	if d.sunset.IsZero() || !other.sunset.IsZero() && other.sunset.Before(d.sunset) {
		return other
	}
	return d
}

// readDeprecations reads what of the operation is deprecated.
func (op *operation) readDeprecations() error {
	var err error
	if op.deprecated, err = deprecationOf(op.spec.OperationID, op.spec.Deprecated, op.spec.Extensions); err != nil {
		return err
	}
	op.deprecatedParameters = map[*openapi3.Parameter]deprecation{}
	for _, parameter := range op.parameters {
		d, err := deprecationOf(op.spec.OperationID+": "+parameter.Name, parameter.Deprecated, parameter.Extensions)
		switch {
		case err != nil:
			return err
		case parameter.Deprecated:
			op.deprecatedParameters[parameter] = d
		}
	}
	return nil
}

// tellDeprecation sets the headers by which a client learns that what it uses is deprecated: Deprecation (RFC 9745),
// Sunset (RFC 8594), and a link to what replaces it. It returns where the response is written.
func (op *operation) tellDeprecation(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	d := op.deprecated
	for parameter, of := range op.deprecatedParameters {
		used := parameter.In == openapi3.ParameterInQuery && r.URL.Query().Has(parameter.Name) ||
			parameter.In == openapi3.ParameterInHeader && r.Header.Get(parameter.Name) != ""
		if used {
			d = d.earlier(of)
		}
	}
	if d.sunset.IsZero() {
		return w
	}
	header := w.Header()
	header.Set("Deprecation", "@"+strconv.FormatInt(d.since.Unix(), 10))
	header.Set("Sunset", d.sunset.UTC().Format(http.TimeFormat))
	docs := "/openapi.json"
	if op.spec.ExternalDocs != nil {
		docs = op.spec.ExternalDocs.URL
	}
	return &linked{ResponseWriter: w, link: "<" + docs + `>; rel="deprecation"`}
}

// linked adds a link to those that the response has when it is written: handlers set theirs in place of others.
type linked struct {
	http.ResponseWriter

	link string // "" once it is added.
}

func (l *linked) WriteHeader(status int) {
	if l.link != "" {
		l.Header().Add("Link", l.link)
		l.link = ""
	}
	l.ResponseWriter.WriteHeader(status)
}

func (l *linked) Write(p []byte) (int, error) {
	if l.link != "" {
		l.WriteHeader(http.StatusOK)
	}
	return l.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (l *linked) Unwrap() http.ResponseWriter { return l.ResponseWriter }
