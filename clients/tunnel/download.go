package tunnel

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// maxReason bounds the panel's words in a [NotOfferedError], in bytes.
const maxReason = 500

// NotOfferedError means that the panel hands out no file of a name. Methods of [Client]
// return it as *NotOfferedError.
type NotOfferedError struct {
	// Panel is its address, and Name the file's name.
	Panel, Name string
	// Reason is what the panel says about it, for people. "" if it does not say.
	Reason string
}

// Error returns what is missing, and the panel's words.
func (e *NotOfferedError) Error() string {
	text := fmt.Sprintf("the panel at %s hands out no %s", e.Panel, e.Name)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Download writes a file to w that the panel hands out below /install/, such as
// SHA256SUMS, and sends no token. It fails with a [*NotOfferedError] where the panel has no
// such file, and with another error if the file has more than limit bytes; w may then have
// a part of it. It tries once, and takes as long as ctx permits. What it writes is as
// trustworthy as the connection: the caller checks it.
func (c *Client) Download(ctx context.Context, name string, limit int64, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.panel+"/install/"+name, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", c.sender.userAgent)
	// Archives are compressed already, and their bytes are what the checksum is of.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.sender.open(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.notOffered(name, resp)
	}
	n, err := io.Copy(w, &failing{io.LimitReader(resp.Body, limit+1), func(err error) error { return c.sender.failure(ctx, err) }})
	if err == nil && n > limit {
		err = fmt.Errorf("%s of the panel at %s has more than %d bytes", name, c.panel, limit)
	}
	return err
}

// notOffered returns the error for an answer that is no file.
func (c *Client) notOffered(name string, resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return c.sender.failure(resp.Request.Context(), err)
	}
	if resp.StatusCode != http.StatusNotFound {
		return answerError(c.panel, resp, body)
	}
	e := &NotOfferedError{Panel: c.panel, Name: name}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err == nil && media == "text/plain" && len(body) <= maxReason {
		e.Reason = strings.TrimSpace(string(body))
	}
	return e
}

// open sends a request once, and returns its answer, whatever that is, while its body
// comes. Only the request's context bounds it.
func (s *sender) open(req *http.Request) (*http.Response, error) {
	ctx, attempt := s.line.Begin(req.Context(), s.panel)
	client := *s.http
	if attempt.Classic(true) {
		client = *s.classic
	}
	client.Timeout = 0 // A large file on a slow line takes longer than an answer.
	resp, err := client.Do(req.WithContext(ctx))
	attempt.End(err)
	if err != nil {
		return nil, s.failure(req.Context(), err)
	}
	return resp, nil
}

// failing translates the errors of a reader, which a copy cannot tell from a writer's.
type failing struct {
	r         io.Reader
	translate func(error) error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, f.translate(err)
}
