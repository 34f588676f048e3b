package tunnel

import (
	"context"
	"iter"
	"net/http"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// idempotencyHeader is that of a POST that takes effect once, however often it is sent.
const idempotencyHeader = "Idempotency-Key"

// codeInProgress is the code of an answer to a repetition while the first request is being
// carried out.
const codeInProgress types.ErrorCode = "idempotency_in_progress"

// An Option changes a single call of a method.
type Option func(*call)

// call is what the options of a call say.
type call struct {
	editors []client.RequestEditorFn
	tag     *string // Takes the ETag of the answer. nil takes none.
}

// IfMatch has a change take place only if the resource is still the one that tag names,
// which [ReadETag] gave: two editors do not undo each other's changes. Otherwise the code
// of the error is precondition_failed.
func IfMatch(tag string) Option {
	return func(c *call) { c.editors = append(c.editors, header("If-Match", tag)) }
}

// ReadETag has a call set *tag to the entity tag of what it returns, for [IfMatch]. It is
// "" if the answer has none.
func ReadETag(tag *string) Option { return func(c *call) { c.tag = tag } }

// IdempotencyKey has the panel carry out a request once, however often it is sent with
// this key, also by another process after a crash. Without it a method that creates
// something makes a key of its own for each call, which covers its retries.
func IdempotencyKey(key string) Option {
	return func(c *call) { c.editors = append(c.editors, header(idempotencyHeader, key)) }
}

func header(name, value string) client.RequestEditorFn {
	return func(_ context.Context, req *http.Request) error {
		req.Header.Set(name, value)
		return nil
	}
}

// operation is one of the generated client with its arguments.
type operation func(...client.RequestEditorFn) (*http.Response, error)

// fetch calls an operation and decodes its answer.
func fetch[T any](opts []Option, send operation) (T, error) {
	var c call
	for _, option := range opts {
		option(&c)
	}
	resp, err := send(c.editors...)
	if err == nil && c.tag != nil {
		*c.tag = resp.Header.Get("ETag")
	}
	return decode[T](body(resp, err))
}

// createOnce calls an operation that creates something, with a key by which the panel tells
// its repetitions.
func createOnce[T any](opts []Option, send operation) (T, error) {
	return fetch[T](append([]Option{IdempotencyKey(uuid.NewString())}, opts...), send)
}

// perform calls an operation whose answer says nothing.
func perform(opts []Option, send operation) error {
	var c call
	for _, option := range opts {
		option(&c)
	}
	return done(body(send(c.editors...)))
}

// each returns the items of a list, page by page. A page is fetched when the one before
// has been used up. The sequence ends after the first error, which comes with the zero
// value of T.
func each[T any](send operation) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		next := ""
		for {
			resp, err := send(func(_ context.Context, req *http.Request) error {
				if next != "" {
					req.URL.RawQuery = next
				}
				return nil
			})
			page, err := decode[[]T](body(resp, err))
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page {
				if !yield(item, nil) {
					return
				}
			}
			if next = nextQuery(resp.Header); next == "" {
				return
			}
		}
	}
}
