# In place of the compiler: what cargo has built outside. So the shop's own Dockerfile runs
# from its first line to its last.

FROM chassis-stand-in/small AS rust
# By this it is found and removed, and what is built on it.
LABEL chassis.stand-in=run
COPY cargo.sh /usr/local/bin/cargo
RUN chmod 755 /usr/local/bin/cargo
COPY built /built
