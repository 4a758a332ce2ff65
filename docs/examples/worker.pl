#!/usr/bin/env perl
# A worker for treewarden: counts the lines of one file after the other.
use strict;
use warnings;
use JSON::PP;
use MIME::Base64;

$| = 1;
my $json = JSON::PP->new->utf8;

sub handle {
    my ($request) = @_;
    my $path = $request->{path};
    utf8::encode($path);
    $path = decode_base64($request->{path_b64}) if exists $request->{path_b64};
    open(my $file, '<', $path) or return (outcome => 'retry', error => "$!");
    my $lines = 0;
    $lines++ while <$file>;
    return (outcome => 'success', result => { lines => $lines });
}

while (my $line = <STDIN>) {
    my $request = $json->decode($line);
    my %answer =
      exists $request->{ping}
      ? (pong => $request->{ping})
      : (id => $request->{id}, handle($request));
    print $json->encode(\%answer), "\n";
}
