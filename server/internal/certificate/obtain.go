package certificate

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/sources"
)

// The types of challenges.
const (
	tlsALPN = "tls-alpn-01"
	http01  = "http-01"
)

// maxRequestRetries is the maximum number of times that a request is sent again which the
// authority fails to serve.
const maxRequestRetries = 3

// obtain gets a certificate for a domain, of which before is the state. It returns the
// time after which the certificate is to be renewed. counted reports whether the authority
// may have been asked to validate or to issue, each of which it does few times for a name.
func (k *Keeper) obtain(ctx context.Context, before db.Certificate) (result db.Certificate, renewIn time.Duration, counted bool, err error) {
	client, err := k.client(ctx)
	if err != nil {
		return result, 0, false, err
	}
	if err := k.discover(ctx, client); err != nil {
		return result, 0, false, err
	}
	if err := k.register(ctx, client); err != nil {
		return result, 0, false, fmt.Errorf("account: %w", err)
	}
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(before.Domain))
	if err != nil {
		return result, 0, false, fmt.Errorf("order: %w", err)
	}
	result = db.Certificate{Domain: before.Domain, Challenge: before.Challenge}
	for _, url := range order.AuthzURLs {
		kind, accepted, err := k.authorize(ctx, client, url, before)
		counted = counted || accepted
		if err != nil {
			return result, 0, counted, err
		}
		if kind != "" {
			result.Challenge = kind
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		return result, 0, counted, fmt.Errorf("order: %w", err)
	}
	result, renewIn, err = finalize(ctx, client, order, result)
	return result, renewIn, true, err
}

// finalize has the authority sign a new key for an order that is ready.
func finalize(ctx context.Context, client *acme.Client, order *acme.Order, result db.Certificate) (db.Certificate, time.Duration, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return db.Certificate{}, 0, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{result.Domain}}, key)
	if err != nil {
		return db.Certificate{}, 0, err
	}
	ders, _, err := client.CreateCertFromOrder(ctx, order, request, true)
	if err != nil {
		return db.Certificate{}, 0, fmt.Errorf("finalize order: %w", err)
	}
	var chain bytes.Buffer
	for _, der := range ders {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return db.Certificate{}, 0, err
		}
	}
	result.Chain = chain.Bytes()
	if result.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return db.Certificate{}, 0, err
	}
	parsed, err := pair(result.Chain, key)
	if err != nil {
		return db.Certificate{}, 0, fmt.Errorf("certificate of the authority: %w", err)
	}
	leaf := parsed.Leaf
	if err := leaf.VerifyHostname(result.Domain); err != nil {
		return db.Certificate{}, 0, fmt.Errorf("certificate of the authority: %w", err)
	}
	result.NotAfter = &leaf.NotAfter
	// When a third of its time is left, by the time that it has from now on: the clocks of
	// the authority and of the panel may differ.
	return result, leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3, nil
}

// client returns a client with the account's key, which all replicas share.
func (k *Keeper) client(ctx context.Context) (*acme.Client, error) {
	candidate, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(candidate)
	if err != nil {
		return nil, err
	}
	if encoded, err = k.opts.Store.AccountKey(ctx, k.opts.Directory, encoded); err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(encoded)
	if err != nil {
		return nil, fmt.Errorf("key of the account: %w", err)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("key of the account: it cannot sign")
	}
	return &acme.Client{
		Key: signer, DirectoryURL: k.opts.Directory, HTTPClient: k.opts.Client, UserAgent: "eclitunneld",
		RetryBackoff: func(n int, _ *http.Request, response *http.Response) time.Duration {
			if n > maxRequestRetries || response.StatusCode == http.StatusTooManyRequests {
				return -1 // The next attempt comes when the authority permits.
			}
			return time.Duration(n) * time.Second
		},
	}, nil
}

// discover reads the authority's directory. Its errors are for the operator who gave a wrong one.
func (k *Keeper) discover(ctx context.Context, client *acme.Client) error {
	directory, err := client.Discover(ctx)
	var problem *acme.Error
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &problem):
		// Its detail can be a whole page.
		err = fmt.Errorf("the server answers %d %s", problem.StatusCode, http.StatusText(problem.StatusCode))
	case errors.As(err, &syntax):
		err = errors.New("it is no directory of a certificate authority (RFC 8555)")
	case err == nil && directory.ExternalAccountRequired:
		err = errors.New("the authority serves only accounts that are bound to one of its customers, which the panel does not support")
	}
	if err != nil {
		return fmt.Errorf("directory %s: %w", k.opts.Directory, err)
	}
	return nil
}

// register makes the account, or has it know the present email.
func (k *Keeper) register(ctx context.Context, client *acme.Client) error {
	var contact []string
	if k.opts.Email != "" {
		contact = []string{"mailto:" + k.opts.Email}
	}
	_, err := client.Register(ctx, &acme.Account{Contact: contact}, acme.AcceptTOS)
	if !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return err
	}
	account, err := client.GetReg(ctx, "")
	if err != nil || len(contact) == 0 || slices.Equal(account.Contact, contact) {
		return err
	}
	account.Contact = contact
	_, err = client.UpdateReg(ctx, account)
	return err
}

// authorize proves to the authority that the domain leads here, and returns the type of
// the challenge by which it did; "" if the authority remembers an earlier one. accepted
// reports whether the authority may have been told to validate.
func (k *Keeper) authorize(ctx context.Context, client *acme.Client, url string, before db.Certificate) (kind string, accepted bool, err error) {
	authorization, err := client.GetAuthorization(ctx, url)
	switch {
	case err != nil:
		return "", false, fmt.Errorf("authorization: %w", err)
	case authorization.Status == acme.StatusValid:
		return "", false, nil
	}
	cleanUp := func(f func(ctx context.Context)) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
		defer cancel()
		f(ctx)
	}
	defer func() {
		var refused *acme.AuthorizationError
		if err != nil && !errors.As(err, &refused) {
			// The authority bounds how many may be pending. Its error says nothing new.
			cleanUp(func(ctx context.Context) { _ = client.RevokeAuthorization(ctx, url) })
		}
	}()
	challenge, err := k.choose(authorization.Challenges, before)
	if err != nil {
		return "", false, err
	}
	answer, err := prepare(client, challenge, before.Domain)
	if err != nil {
		return "", false, err
	}
	if err := k.opts.Store.SaveChallenge(ctx, answer, leaseTime); err != nil {
		return "", false, err
	}
	// What stays behind expires.
	defer cleanUp(func(ctx context.Context) { _ = k.opts.Store.DeleteChallenge(ctx, answer.Kind, answer.Name) })
	if _, err := client.Accept(ctx, challenge); err != nil {
		return "", true, fmt.Errorf("%s: %w", challenge.Type, err)
	}
	if _, err := client.WaitAuthorization(ctx, authorization.URI); err != nil {
		return "", true, fmt.Errorf("%s: %w", challenge.Type, err)
	}
	return challenge.Type, true, nil
}

// choose returns the challenge of an attempt: of the types that can be answered, the one
// that succeeded last, and after a failure the others in turn.
func (k *Keeper) choose(offered []*acme.Challenge, before db.Certificate) (*acme.Challenge, error) {
	kinds := []string{tlsALPN}
	if k.opts.HTTP {
		kinds = append(kinds, http01)
	}
	if i := slices.Index(kinds, before.Challenge); i > 0 {
		kinds[0], kinds[i] = kinds[i], kinds[0]
	}
	var usable []*acme.Challenge
	for _, kind := range kinds {
		for _, challenge := range offered {
			if challenge.Type == kind {
				usable = append(usable, challenge)
			}
		}
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("the authority offers no challenge of the types %s", strings.Join(kinds, ", "))
	}
	return usable[before.Failures%len(usable)], nil
}

// prepare returns the answer to a challenge.
func prepare(client *acme.Client, challenge *acme.Challenge, domain string) (db.Challenge, error) {
	if challenge.Type == http01 {
		answer, err := client.HTTP01ChallengeResponse(challenge.Token)
		return db.Challenge{Kind: http01, Name: challenge.Token, Answer: []byte(answer)}, err
	}
	certificate, err := client.TLSALPN01ChallengeCert(challenge.Token, domain)
	if err != nil {
		return db.Challenge{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return db.Challenge{}, err
	}
	answer := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	answer = append(answer, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return db.Challenge{Kind: tlsALPN, Name: domain, Answer: answer}, nil
}

// challengeCertificate returns the certificate that answers a tls-alpn-01 challenge.
func (k *Keeper) challengeCertificate(ctx context.Context, domain string) (*tls.Certificate, error) {
	if !slices.Contains(k.opts.Domains, domain) {
		return nil, errors.New("not a domain of the panel")
	}
	answer, err := k.opts.Store.ChallengeAnswer(ctx, tlsALPN, domain)
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(answer, answer)
	return &certificate, err
}

// challengePath is where authorities ask for answers to http-01 (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// ServeHTTP answers the authority's http-01 challenges, whichever replica they are for, and
// responds 404 to anything else.
func (k *Keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, challengePath)
	if !ok || token == "" || len(token) > 256 {
		http.NotFound(w, r)
		return
	}
	answer, err := k.opts.Store.ChallengeAnswer(withCaller(r.Context(), r.RemoteAddr), http01, token)
	switch {
	case errors.Is(err, db.ErrNotFound):
		http.NotFound(w, r)
	case err != nil:
		http.Error(w, "The database does not respond.", http.StatusServiceUnavailable)
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		// An error here means that the caller disconnected.
		_, _ = w.Write(answer)
	}
}

// withCaller returns a context whose calls of the database take turns with those of other callers.
func withCaller(ctx context.Context, remote string) context.Context {
	caller, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ctx // Not an IP network.
	}
	return db.WithSource(ctx, sources.Of(caller.Addr().Unmap().WithZone("")))
}

// IsChallenge reports whether a request is an authority's, for ServeHTTP.
func IsChallenge(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, challengePath) }

// withoutPage replaces the error of an answer that no authority gives, such as a proxy's, which can be a whole
// page.
func (k *Keeper) withoutPage(err error) error {
	var problem *acme.Error
	if errors.As(err, &problem) && problem.ProblemType == "" {
		return fmt.Errorf("authority of %s: the server answers %d %s", k.opts.Directory, problem.StatusCode, http.StatusText(problem.StatusCode))
	}
	return err
}

// failure says in one line why an attempt failed: what the authority says, if it does.
func failure(err error) string {
	var refused *acme.AuthorizationError
	if errors.As(err, &refused) && len(refused.Errors) > 0 {
		err = refused.Errors[0]
	}
	var problem *acme.Error
	if errors.As(err, &problem) && problem.Detail != "" {
		return problem.Detail
	}
	return err.Error()
}

// retryAfter returns for how long the authority wants no further request.
func retryAfter(err error) time.Duration {
	var problem *acme.Error
	if !errors.As(err, &problem) {
		return 0
	}
	wait, _ := acme.RateLimit(problem)
	return max(0, wait)
}

// pair returns a certificate with its key.
func pair(chain []byte, key crypto.PrivateKey) (*tls.Certificate, error) {
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
	return &certificate, err
}
