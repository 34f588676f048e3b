// Package contracttest holds a running panel to openapi.yaml: a test that sends
// its requests through Transport fails when an answer drifts from the contract.
package contracttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/eclitunnel/eclitunnel"
)

// Transport returns a RoundTripper that sends requests through base (nil means
// http.DefaultTransport) and reports to t every answer that the contract does not
// describe: another status, a missing header, a body that does not fit its
// schema; of a stream of events, every event as it is read. Answers to paths outside the contract and outside /api/ pass. The answer
// is handed on unchanged either way.
func Transport(t testing.TB, base http.RoundTripper) http.RoundTripper {
	t.Helper()
	contract, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{t: t, base: base, contract: contract}
}

type transport struct {
	t        testing.TB
	base     http.RoundTripper
	contract *contract
}

// RoundTrip sends the request and checks the answer.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.base.RoundTrip(request)
	if err != nil || response.StatusCode == http.StatusSwitchingProtocols {
		return response, err
	}
	if mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); mediaType == eventStream {
		if err := t.contract.check(request, response, nil); err != nil {
			t.t.Errorf("%s %s answered a stream against the contract: %v", request.Method, request.URL.Path, err)
		}
		response.Body = &stream{transport: t, body: response.Body}
		return response, nil
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	if response.StatusCode == http.StatusInternalServerError {
		// The contract describes it, and it is a bug all the same.
		t.t.Errorf("%s %s failed: %s", request.Method, request.URL.Path, body)
	}
	if err := t.contract.check(request, response, body); err != nil {
		t.t.Errorf("%s %s answered %d against the contract: %v\n%s",
			request.Method, request.URL.Path, response.StatusCode, err, body)
	}
	return response, nil
}

// contract is openapi.yaml with its paths made ready for matching.
type contract struct {
	doc    *openapi3.T
	strict *strict
	routes *http.ServeMux // pattern is the path in the contract

	mu sync.Mutex // guards strict, whose compiler is not safe for concurrent use
}

var load = sync.OnceValues(func() (*contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(eclitunnel.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("parse contract: %w", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("check contract: %w", err)
	}
	second, err := newStrict(eclitunnel.OpenAPI)
	if err != nil {
		return nil, err
	}
	c := &contract{doc: doc, strict: second, routes: http.NewServeMux()}
	for path := range doc.Paths.Map() {
		c.routes.Handle(path, http.NotFoundHandler())
	}
	return c, nil
})

// check checks a response. Without a body it leaves that out.
func (c *contract) check(request *http.Request, response *http.Response, body []byte) error {
	_, path := c.routes.Handler(request)
	if path == "" {
		if !strings.HasPrefix(request.URL.Path, "/api/") {
			return nil
		}
		if response.StatusCode != http.StatusNotFound {
			return errors.New("the path is not in it")
		}
		return c.checkError(response, body)
	}
	method := request.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	item := c.doc.Paths.Value(path)
	operation := item.GetOperation(method)
	if operation == nil {
		if response.StatusCode != http.StatusMethodNotAllowed {
			return errors.New("the method is not in it")
		}
		return c.checkError(response, body)
	}
	route := &routers.Route{Spec: c.doc, Path: path, PathItem: item, Method: method, Operation: operation}
	err := openapi3filter.ValidateResponse(request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: request, Route: route},
		Status:                 response.StatusCode,
		Header:                 response.Header,
		Body:                   io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{
			IncludeResponseStatus:   true,
			MultiError:              true,
			ExcludeResponseBody:     body == nil,
			SchemaValidationOptions: []openapi3.SchemaValidationOption{formats},
		},
	})
	if err != nil || body == nil || !hasBody(request.Method, response.StatusCode) {
		return err
	}
	if err := checkCode(operation, response.StatusCode, body); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.strict.check(path, method, response.StatusCode, body)
}

// checkCode checks that an error has one of the codes that its response lists in
// x-codes. The response is that of the status, or else the default of the operation,
// whose codes are those that every operation can have.
func checkCode(operation *openapi3.Operation, status int, body []byte) error {
	if status < http.StatusBadRequest {
		return nil
	}
	response := operation.Responses.Status(status)
	if response == nil {
		response = operation.Responses.Default()
	}
	var failure struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &failure); err != nil {
		return fmt.Errorf("parse error: %w", err)
	}
	if codes, _ := response.Value.Extensions["x-codes"].([]any); !slices.Contains(codes, any(failure.Error)) {
		return fmt.Errorf("the status %d with the code %s is not on the operation", status, failure.Error)
	}
	return nil
}

func (c *contract) checkError(response *http.Response, body []byte) error {
	if response.Request.Method == http.MethodHead {
		return nil
	}
	if contentType := response.Header.Get("Content-Type"); contentType != "application/json" {
		return fmt.Errorf("an error is JSON, not %q", contentType)
	}
	value, err := openapi3filter.JSONBodyDecoder(bytes.NewReader(body), response.Header, nil, nil)
	if err != nil {
		return err
	}
	return c.doc.Components.Schemas["Problem"].Value.VisitJSON(value, openapi3.VisitAsResponse(), openapi3.MultiErrors(), formats)
}

// formats checks what OpenAPI leaves to the validator.
var formats = openapi3.WithStringFormatValidator("uuid", openapi3.NewCallbackValidator(func(s string) error {
	if !uuid.MatchString(s) {
		return errors.New("not a UUID")
	}
	return nil
}))

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
