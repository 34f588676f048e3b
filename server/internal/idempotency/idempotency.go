// Package idempotency does what a request asks for once, however often it is sent with the same Idempotency-Key
// (draft-ietf-httpapi-idempotency-key-header). A repetition gets the first one's answer again.
//
// The transaction that makes the change writes that the key is used (db.WithClaim), so that no crash can separate the
// two; the answer is stored before it is sent. Only changes are remembered: a request that is refused has changed
// nothing, and is decided anew when it comes again.
package idempotency

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	// Header carries the key, and ReplayedHeader tells that an answer is that of an earlier request.
	Header         = "Idempotency-Key"
	ReplayedHeader = "Idempotency-Replayed"

	// pending is how long the answer to a change may take to be stored, more than a request can last. If it is not
	// there by then, it never will be.
	pending = 90 * time.Second
	// retryPending is the Retry-After until then.
	retryPending = time.Second
	// maxAnswer bounds a stored answer, in bytes. That to a run of 16 ports in both protocols has about 20,000.
	maxAnswer = 256 << 10
	// storeTimeout bounds storing an answer, for a caller who has disconnected too.
	storeTimeout = 5 * time.Second
	// minAnonymous is how many characters a key of a caller without a credential has at least: who shares an address
	// must not be able to guess it.
	minAnonymous = 22
)

// keptHeaders are the headers of an answer that are repeated with it.
var keptHeaders = []string{"Content-Type", "ETag", "Link", "Location"}

// Store is the part of the database that Keys uses.
type Store interface {
	Claimed(ctx context.Context, id []byte) (db.Claimed, error)
	StoreAnswer(ctx context.Context, id, answer []byte) error
	ReleaseClaim(ctx context.Context, id []byte) error
}

// Keys answer repeated requests. They are safe for concurrent use.
type Keys struct {
	store  Store
	logger *slog.Logger
}

// New returns Keys with what was done in a store, which all replicas share.
func New(store Store, logger *slog.Logger) *Keys { return &Keys{store: store, logger: logger} }

// answer is a stored answer.
type answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// Serve serves a request of an operation that takes a key. The request's context has the caller (auth.FromContext),
// who may use the operation, and its body is complete and short.
func (k *Keys) Serve(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
	text := r.Header.Get(Header)
	if text == "" {
		next(w, r)
		return
	}
	owner := ownerOf(r.Context())
	if auth.FromContext(r.Context()).Kind() == auth.KindAnonymous && len(text) < minAnonymous {
		problem.Write(w, r, problem.Invalid(problem.Field(Header, "must have at least 22 characters in a request without a credential")))
		return
	}
	key, request, err := k.read(r, owner, text)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	if k.repeat(w, r, key, request) {
		return
	}
	claim := &db.Claim{ID: key.id, Owner: owner, Request: request}
	recorded := &recorder{ResponseWriter: w, status: http.StatusOK}
	next(recorded, r.WithContext(db.WithClaim(r.Context(), claim)))
	switch {
	case claim.Made():
		k.keep(r, key, recorded)
	case recorded.status >= http.StatusBadRequest && k.repeat(w, r, key, request):
		// Another request with the key was faster. What this one was refused for is perhaps what that one did.
		return
	}
	recorded.send()
}

// read derives the key of a request, and the code of the request itself.
func (k *Keys) read(r *http.Request, owner, text string) (*key, []byte, error) {
	key, err := newKey(owner, text)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	code := hmac.New(sha256.New, key.code)
	_, _ = io.WriteString(code, r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery+"\n")
	_, _ = code.Write(body)
	return key, code.Sum(nil), nil
}

// repeat answers a request whose key was used before. It reports false, and answers nothing, if it was not.
func (k *Keys) repeat(w http.ResponseWriter, r *http.Request, key *key, request []byte) bool {
	claimed, err := k.store.Claimed(r.Context(), key.id)
	switch {
	case errors.Is(err, db.ErrNotFound):
		return false
	case err != nil:
	case !hmac.Equal(claimed.Request, request):
		err = problem.IdempotencyKeyReused()
	case claimed.Answer == nil && claimed.Age < pending:
		err = problem.IdempotencyInProgress(retryPending)
	case claimed.Answer == nil:
		err = problem.IdempotencyAnswerLost()
	default:
		err = k.replay(w, key, claimed.Answer)
	}
	if err != nil {
		problem.Write(w, r, err)
	}
	return true
}

func (k *Keys) replay(w http.ResponseWriter, key *key, sealed []byte) error {
	text, err := key.open(sealed)
	if err != nil {
		return err
	}
	var stored answer
	if err := json.Unmarshal(text, &stored); err != nil {
		return err
	}
	for name, values := range stored.Header {
		w.Header()[name] = values
	}
	w.Header().Set(ReplayedHeader, "true")
	w.WriteHeader(stored.Status)
	// An error here means that the caller disconnected.
	_, _ = w.Write(stored.Body)
	return nil
}

// keep stores the answer to a request that has changed something. An answer that cannot be stored is sent all the
// same: a repetition is told that it is lost.
func (k *Keys) keep(r *http.Request, key *key, recorded *recorder) {
	// The caller may have disconnected, which is when the answer will be asked for again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTimeout)
	defer cancel()
	var err error
	switch {
	case recorded.status >= http.StatusInternalServerError:
		return // It says nothing about what was done.
	case recorded.status >= http.StatusBadRequest:
		err = k.store.ReleaseClaim(ctx, key.id) // A transaction without an effect.
	case recorded.body.Len() > maxAnswer:
		return
	default:
		stored := answer{Status: recorded.status, Header: http.Header{}, Body: recorded.body.Bytes()}
		for _, name := range keptHeaders {
			if values := recorded.Header().Values(name); len(values) > 0 {
				stored.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
		var text []byte
		if text, err = json.Marshal(stored); err == nil {
			err = k.store.StoreAnswer(ctx, key.id, key.seal(text))
		}
	}
	if err != nil {
		k.logger.WarnContext(ctx, "the answer to a request with an Idempotency-Key was not stored; repetitions will not get it",
			slog.String("path", r.URL.Path), slog.Any("error", err))
	}
}

// recorder keeps a response until it is sent.
type recorder struct {
	http.ResponseWriter

	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func (r *recorder) send() {
	r.ResponseWriter.WriteHeader(r.status)
	// An error here means that the caller disconnected.
	_, _ = r.ResponseWriter.Write(r.body.Bytes())
}
