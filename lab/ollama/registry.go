package main

// The client of a model registry: one request, its scheme and its errors.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
)

// Registry is where a name's manifest and blobs are.
type Registry struct {
	name     Name
	insecure bool
}

// url is https unless insecure was asked for: a scheme written in the name is lost before it gets here.
func (g Registry) url(kind, ref string) *url.URL {
	scheme := "https"
	if g.insecure {
		scheme = "http"
	}
	base := &url.URL{Scheme: scheme, Host: g.name.Host}
	return base.JoinPath("v2", g.name.Namespace, g.name.Model, kind, ref)
}

// do sends one request; a 404 is os.ErrNotExist, any other error status carries its body.
func (g Registry) do(ctx context.Context, method string, u *url.URL, accept string, redirect func(*http.Request, []*http.Request) error) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent())
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := (&http.Client{CheckRedirect: redirect}).Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer resp.Body.Close()
	switch body, err := io.ReadAll(resp.Body); {
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, errors.New("unauthorized: access denied")
	case resp.StatusCode == http.StatusNotFound:
		return nil, os.ErrNotExist
	case err != nil:
		return nil, fmt.Errorf("%d: %w", resp.StatusCode, err)
	default:
		return nil, fmt.Errorf("%d: %s", resp.StatusCode, body)
	}
}

func (g Registry) manifest(ctx context.Context) ([]byte, error) {
	resp, err := g.do(ctx, http.MethodGet, g.url("manifests", g.name.Tag), typeManifest, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
