// Package tracingtest is a collector of traces, for tests.
package tracingtest

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector receives traces by OTLP over HTTP. It is safe for concurrent use.
type Collector struct {
	// URL is the value of OTEL_EXPORTER_OTLP_ENDPOINT.
	URL string

	t  testing.TB
	mu sync.Mutex

	headers []http.Header
	service map[string]string
	spans   []*spans.Span
	text    strings.Builder
}

// Start starts a collector, which ends with the test.
func Start(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{t: t, service: map[string]string{}}
	server := httptest.NewServer(http.HandlerFunc(c.receive))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

func (c *Collector) receive(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/traces" {
		c.t.Errorf("the collector got a request for %s", r.URL.Path)
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			c.t.Errorf("unzip: %v", err)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	if err != nil {
		c.t.Errorf("read: %v", err)
		return
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &request); err != nil {
		c.t.Errorf("decode: %v", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, r.Header.Clone())
	c.text.Write(data)
	for _, resource := range request.GetResourceSpans() {
		for key, value := range attributes(resource.GetResource().GetAttributes()) {
			c.service[key] = value
		}
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Headers returns those of the requests so far.
func (c *Collector) Headers() []http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers
}

// Service returns the attributes of the service.
func (c *Collector) Service() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.service
}

// Spans returns those with a name that have arrived so far.
func (c *Collector) Spans(name string) []*spans.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*spans.Span
	for _, span := range c.spans {
		if span.GetName() == name {
			found = append(found, span)
		}
	}
	return found
}

// Contains reports whether the text is anywhere in what has arrived so far.
func (c *Collector) Contains(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(c.text.String(), text)
}

// Attributes returns those of a span as texts.
func Attributes(span *spans.Span) map[string]string { return attributes(span.GetAttributes()) }

func attributes(list []*common.KeyValue) map[string]string {
	texts := map[string]string{}
	for _, a := range list {
		text := a.GetValue().GetStringValue()
		if n, ok := a.GetValue().GetValue().(*common.AnyValue_IntValue); ok {
			text = strconv.FormatInt(n.IntValue, 10)
		}
		texts[a.GetKey()] = text
	}
	return texts
}
